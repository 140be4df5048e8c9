"""Settings that the user gave: stored with the study as they are, compared on resume."""

from __future__ import annotations

from dataclasses import dataclass

from study.config import search_methods
from study.config.budget import ALLOCATE
from trainables import workload
from trainables.data.common.splits import SPLITS
from trainables.data.common.wording import DEFAULT_ASKING, PLACE
from trainables.options import option
from trainables.training.regime import CHOOSE

ENGINES = ("auto", "off", "0", "1", "2", "3", "2-offload", "3-offload")
PRECISIONS = ("auto", *workload.PRECISIONS)
"""Values of ``--precision``; ``auto`` leaves it to the devices."""

ASK, SPEND, WHERE = GROUPS = ("what to ask", "what to spend", "where and how")
"""Titles of the groups of options of ``study.launch``."""

ACCURACY = "overall"
"""Column of a measure that decides unless another is named: accuracy, or what answers earn."""
YOUNG = (
    *("arm", "set", "search", "stop", "tuned_to", "epochs", "prompt", "system", "choose"),
    *("base_bits", "measure", "searches", "against", "splits"),
)
"""Settings that are younger than the first studies: recorded only where they are given."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that decides a study's trials and numbers, in the user's words, and nothing else.

    Nothing is checked here: ``study.config.definition`` parses it. The names of the fields are
    keys of ``study.json``, so they outlive better ones.
    """

    space: str = option(group=ASK, metavar="NAME", help="a search space, or a file.py of your own")
    arm: str | None = option(
        None, group=ASK, metavar="NAME[,NAME]", help="arms of the space to run", default="all"
    )
    set: list[str] | None = option(
        None,
        group=ASK,
        metavar="NAME=VALUES",
        help="other values of settings: lora.rank=4,8 lr=0.001..0.01 lora.targets=all, or of one "
        "arm: ARM/lr=0.01; max_grad_norm=none: no clipping; label_smoothing, prompt, system=none: "
        "the study's",
        several=True,
    )
    model: str = option(
        "tiny",
        group=ASK,
        metavar="NAME",
        help="'tiny', which is shipped, a folder, or hub:ORG/NAME",
    )
    image_size: int | None = option(
        None,
        group=ASK,
        help="pixels a side, with interpolated position embeddings",
        default="the model's",
    )
    data: str = option(
        "phantom", group=ASK, metavar="NAME[,NAME]", help="a dataset, or several as one"
    )
    data_root: str | None = option(
        None,
        group=ASK,
        metavar="DIR",
        help="folder of the dataset, or with a folder for each dataset; or hub:ORG/NAME",
    )
    split: str = option(
        "official",
        group=ASK,
        metavar="|".join(SPLITS),
        help="division of the data: by_image is a new one, with no image in two splits",
    )
    splits: int = option(
        1,
        group=ASK,
        help="divisions of the data by image, in each of which each arm is searched and confirmed "
        "anew, for small sets; differences are described, and no arm is called better; 3 or more",
    )
    allow_leak: bool = option(
        False, group=ASK, help="run although test questions are in the training split"
    )
    ood: str | None = option(
        None,
        group=ASK,
        metavar="NAME[,NAME]",
        help="datasets, in DIR/NAME, to score the winners on that they never trained on",
    )
    prompt: str = option(
        DEFAULT_ASKING.prompt,
        group=ASK,
        metavar="TEXT",
        help=f"how questions are asked, in training too: a text with {PLACE} in it",
    )
    system: str = option(
        DEFAULT_ASKING.system,
        group=ASK,
        metavar="TEXT",
        help="system message, for models with a chat template",
        default="none, or the template's own",
    )
    choose: str = option(
        CHOOSE[0],
        group=ASK,
        metavar="|".join(CHOOSE),
        help="how questions with options are answered: by the option that the answer names, or by "
        "the likelihood of each",
    )

    trials: int | None = option(
        None, group=SPEND, help="trials of the search", default="the space's"
    )
    max_examples: int | None = option(
        None,
        group=SPEND,
        help="training examples of a trial, repeated ones counted",
        default="the space's",
    )
    epochs: float | None = option(
        None,
        group=SPEND,
        help="training examples of a trial, in passes over the training split; in place of "
        "--max-examples",
        default="the space's, if it has epochs",
    )
    allowance: str | None = option(
        None,
        flag="--budget",
        group=SPEND,
        metavar="2h|20gpu-h|500trials",
        help="end the search in time for the confirmation: hours from now to the answer, hours of "
        "devices that trials use, or trials",
    )
    allocate: str = option(
        "auto",
        group=SPEND,
        metavar="|".join(ALLOCATE),
        help="division of trials among arms: joint: where they pay; floor: 60% equally, the rest "
        "where they pay; equal; tuned: where an arm may still gain most, until all are tuned",
        default="tuned; floor with costs in --objective or --under",
    )
    tuned_to: float | None = option(
        None,
        group=SPEND,
        metavar="POINTS",
        help="with --allocate tuned: end the search when no arm may gain more than this",
        default="the margin",
    )
    search: str = option(
        "auto",
        group=SPEND,
        metavar="NAME",
        help="how an arm's next point is found: "
        f"{', '.join(search_methods.SEARCHERS.listed())}, or "
        f"{', '.join(search_methods.OPTUNA)} of Optuna",
        default=search_methods.SEARCH,
    )
    stop: str = option(
        "auto",
        group=SPEND,
        metavar="|".join(search_methods.STOPPERS.listed()),
        help="early stopping: which of an arm's trials go on at a rung",
        default=search_methods.STOP,
    )
    seed: int = option(0, group=SPEND, help="seed of search and training")
    seeds: int = option(3, group=SPEND, help="confirmations of each arm, for each of its searches")
    searches: int = option(
        1,
        group=SPEND,
        help="independent searches of each arm: with two or more, what is found is about the "
        "methods, and with one about the models that it tuned",
    )
    objective: str = option(
        "score",
        group=SPEND,
        metavar="score[,COST]",
        help="search for a trade-off: score,memory (also parameters, seconds)",
    )
    under: str | None = option(
        None,
        group=SPEND,
        metavar="COST<N[,COST<N]",
        help='confirm only what costs less: "memory<8GiB,parameters<1M" (also seconds, percent)',
    )
    margin: float = option(
        1.0,
        group=SPEND,
        metavar="POINTS",
        help="an arm that is worse by less than this counts as not worse",
    )
    measure: str = option(
        ACCURACY,
        group=SPEND,
        metavar="NAME",
        help="what decides which arm is better: overall, which is accuracy; a column of another "
        "measure, such as macro_f1; or a file.py of your own",
    )
    against: str | None = option(
        None,
        group=SPEND,
        metavar="ARM",
        help="compare each arm with this one alone, which shows smaller differences",
        default="the space's, or all pairs",
    )

    deepspeed: str = option(
        "auto",
        group=WHERE,
        metavar="|".join((*ENGINES, "FILE")),
        help="ZeRO stage, or DeepSpeed's configuration as JSON, taken as it is",
    )
    precision: str = option(
        "auto",
        group=WHERE,
        metavar="|".join(PRECISIONS),
        help="precision in which trials compute; auto: bf16 where the devices have it",
    )
    base_bits: int | None = option(
        None,
        group=WHERE,
        metavar="4",
        help="bits of the base's weights: the linear layers of slots whose weights no arm trains "
        "are quantised (NF4, by bitsandbytes)",
        default="as they are",
    )
    label_smoothing: float = option(
        0.0, group=WHERE, help="label smoothing in training, e.g. 0.1 as BLIP"
    )
    questions_per_image: int = option(
        1,
        group=WHERE,
        help="questions about an image that come one after another in training: fewer images to "
        "encode in a batch, where the image encoder is trained",
        default="1: each question for itself",
    )
    group_by_length: bool = option(
        False,
        group=WHERE,
        help="put texts of like length into a batch in training: less padding",
        default="no: by chance",
    )
    beams: int | None = option(
        None,
        group=WHERE,
        help="beams in the search for an answer; 1 is greedy",
        default="the model's: 3 for a BLIP, 1 for a LLaVA",
    )

    @property
    def times_searched(self) -> int:
        """Number of times that each arm is searched: ``searches`` or, each in its own split of the
        data, ``splits``."""
        return max(self.searches, self.splits)
