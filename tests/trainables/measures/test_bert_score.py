"""BERTScore with a random tiny encoder: its arithmetic, not its worth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.trainables.measures.examples import examples
from trainables.errors import BadInput
from trainables.measures.common.bert_score import measure
from trainables.measures.common.deciding import deciding


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import BertConfig, BertModel, BertTokenizer

    made = tmp_path_factory.mktemp("bert")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "left", "right", "lung", "heart"]
    (made / "vocab.txt").write_text("\n".join(words))
    BertTokenizer(str(made / "vocab.txt")).save_pretrained(made)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
    )
    BertModel(config).save_pretrained(made)
    return made


def test_equal_texts_score_full_and_others_by_their_best_matches(folder: Path) -> None:
    embeddings = measure(str(folder), layer=0)
    asked = examples(("open", "left lung"), ("open", "left lung"), ("open", "left lung"))
    exact, partly, nothing = (
        embeddings.score([given], asked[:1])["bert_score"] for given in ("Left lung", "left", "")
    )
    assert exact == pytest.approx(100, abs=1e-3) and nothing == 0
    assert 0 < partly < 100
    given = ["left lung", "left", ""]
    assert embeddings.score(given, asked)["bert_score"] == pytest.approx((exact + partly) / 3)
    assert embeddings.weighted is not None
    of = embeddings.weighted(given, asked)["bert_score"]
    assert of(np.array([[1, 0, 0], [0, 2, 0], [1, 1, 2]])) == pytest.approx(
        [exact, partly, (exact + partly) / 4]
    )


def test_a_file_that_names_the_folder_decides(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "bert.py"
    text = "from trainables.measures.common.bert_score import measure\nMEASURE = measure({!r})\n"
    file.write_text(text.format(str(folder)))
    by = deciding(str(file))
    assert (by.column, by.title) == ("bert_score", "BERTScore %")
    file.write_text(text.format(str(tmp_path)))
    with pytest.raises(BadInput, match=r"BERTScore needs a model, but .* has no config\.json"):
        deciding(str(file))
