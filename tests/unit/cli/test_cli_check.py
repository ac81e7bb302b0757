"""cli.check: what a person reads of a report, and when damage is left."""

from criollo.cli.check import lines
from criollo.model.care import DAMAGED, REPAIRED, UNCHECKED, ImageCheck, LayerCheck, Report


def told(report: Report, *, repair: bool = False) -> str:
    return "\n".join(lines(report, repair=repair))


def damaged(**more: object) -> LayerCheck:
    return LayerCheck(
        layer="ab" * 16, state=DAMAGED, findings=["/x: is missing"], count=3, images=["a:1"], containers=["c1"], **more
    )  # type: ignore[arg-type]


def test_a_whole_store_is_one_line() -> None:
    report = Report(quick=False, images=2, layers=3, size_bytes=5_000_000, seconds=1.25)
    assert told(report) == "2 images, 3 layers, full check, 5 MB read in 1.2 s: no damage"
    assert not report.is_damaged


def test_damage_names_files_images_and_containers_and_what_to_do() -> None:
    text = told(Report(quick=False, damaged=[damaged()]))
    for part in (
        f"DAMAGED  layer {'ab' * 16}",
        "/x: is missing",
        "and 2 more",
        "images: a:1",
        "containers: c1",
        "crio check --repair",
    ):
        assert part in text


def test_what_was_not_repaired_is_to_be_removed_by_hand() -> None:
    report = Report(quick=False, damaged=[damaged(not_repaired="no registry has it")])
    assert report.is_damaged
    assert "not repaired: no registry has it" in told(report, repair=True)
    assert "remove by hand" in told(report, repair=True)


def test_repaired_damage_is_none_left() -> None:
    layer = damaged()
    layer.state = REPAIRED
    report = Report(quick=False, damaged=[layer])
    assert not report.is_damaged
    assert "go on with the old tree" in told(report, repair=True)


def test_what_cannot_be_checked_is_no_damage() -> None:
    report = Report(quick=False, unchecked=[LayerCheck(layer="x", state=UNCHECKED)])
    assert not report.is_damaged
    assert "cannot be checked: 1 layers" in told(report)


def test_databases_images_and_containers_count() -> None:
    for report in (
        Report(quick=True, databases=["images.db: broken"]),
        Report(quick=True, broken=[ImageCheck(image="a:1", findings=["bad"])]),
        Report(quick=True, containers=["c"]),
    ):
        assert report.is_damaged
        assert "DAMAGED" in told(report)
    assert not Report(quick=True, broken=[ImageCheck(image="a:1", findings=["bad"], removed=True)]).is_damaged
