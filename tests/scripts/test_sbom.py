"""The list of what the image holds; tests/containers.sh makes it of a real one."""

import importlib.util
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts" / "sbom.py"


def test_debian_s_packages_stand_beside_python_s_and_the_image_is_what_they_are_in() -> None:
    spec = importlib.util.spec_from_file_location("sbom", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    sbom = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sbom)

    python = {
        "specVersion": "1.6",
        "components": [{"name": "torch", "version": "2.13.0"}, {"name": "phs-pipeline", "version": "0.9"}],
        "metadata": {"tools": {}},
    }
    content = sbom.with_debian(
        python, "libc6\t2.36-9+deb12u14\tamd64\nnetbase\t1:6.4\tall\n", 'ID=debian\nVERSION_ID="12"\n\n# none\n'
    )
    assert content["specVersion"] == "1.6"
    assert content["components"][:2] == python["components"]
    assert [part["purl"] for part in content["components"][2:]] == [
        "pkg:deb/debian/libc6@2.36-9%2Bdeb12u14?arch=amd64&distro=debian-12",
        "pkg:deb/debian/netbase@1%3A6.4?arch=all&distro=debian-12",
    ]
    assert content["metadata"]["tools"] == {}
    image = content["metadata"]["component"]
    assert (image["type"], image["name"], image["version"]) == ("container", "phs-pipeline", "0.9")
