"""A protocol that is sound, of a study that nobody ran."""

from study.protocol.planned import Named, PlannedProtocol, PlannedStops, PlannedTest

ANY = PlannedProtocol(
    study="one",
    identity="",
    written="2026-01-01 00:00:00 +0000",
    question="?",
    arms={"lora": {"lr": "LogUniform(low=0.001, high=0.1)"}},
    comparisons="each pair of arms (0), two-sided, corrected by Holm's method",
    claim="models",
    measure="overall",
    margin=1.0,
    level_percent=95,
    searches=1,
    seeds=2,
    seed=0,
    searcher="gp",
    stops=PlannedStops(trials=3, allocation="tuned", tuned_to=1.0, spending=None, early="median"),
    budget={"trials": 3},
    objective="score",
    under=None,
    asked={"prompt": "{question}"},
    precision="fp32",
    scoring=2,
    model=Named(name="tiny", digest="0" * 64),
    data=Named(name="phantom", digest="0" * 64),
    test=PlannedTest(digest="0" * 64, images_digest="1" * 64, questions=9, units=3, unit="images"),
    versions={"python": "3.11"},
    commit="",
)
