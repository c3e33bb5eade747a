"""What `umec up` says when it starts: a folder of roots that nobody is believed by is told of, and no other is."""

from pathlib import Path

from umec_platform.cli.up import _welcome
from umec_platform.composition.settings import SiteSettings


def test_a_folder_of_roots_that_holds_none_is_told_of(tmp_path: Path) -> None:
    folder = tmp_path / "ek-roots"
    (folder / "anchors").mkdir(parents=True)
    (folder / ".keep").touch()

    def warned() -> bool:
        settings = SiteSettings.model_validate({"attest": {"ek_roots": folder}})
        return "attest.ek_roots is empty" in _welcome(settings, tmp_path / "operator.json")

    assert warned()
    (folder / "anchors" / "vendor.pem").touch()
    assert not warned()
    assert "attest.ek_roots is not set" in _welcome(SiteSettings(), tmp_path / "operator.json")
