"""What an image holds, as a CycloneDX list (SBOM): Python's packages and Debian's, with versions and licences.

    python sbom.py /usr/local/bin/python > phs-pipeline.cdx.json

Runs inside the image, in an environment with cyclonedx-bom; see Dockerfile.sbom and `make sbom`.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

MAIN = "phs-pipeline"
DPKG = ("dpkg-query", "--show", "--showformat", "${Package}\t${Version}\t${Architecture}\n")


def listed(python: str) -> dict[str, Any]:
    """The list of everything, the image itself as what it describes.

    Args:
        python: the interpreter whose packages are listed.
    """
    command = [str(Path(sys.executable).with_name("cyclonedx-py")), "environment", "--output-reproducible", python]
    content: dict[str, Any] = json.loads(_said(command))
    return with_debian(content, _said(DPKG), Path("/etc/os-release").read_text(encoding="utf-8"))


def with_debian(content: dict[str, Any], packages: str, release: str) -> dict[str, Any]:
    """A list of Python's packages with Debian's in it.

    Args:
        content: CycloneDX with phs-pipeline among its components.
        packages: a line each, name, version and architecture, between tabs.
        release: the content of os-release.
    """
    settings = dict(line.split("=", 1) for line in release.splitlines() if "=" in line)
    system, version = settings["ID"].strip('"'), settings["VERSION_ID"].strip('"')
    main = next(part for part in content["components"] if part["name"] == MAIN)
    image = {"type": "container", "bom-ref": "image", "name": MAIN, "version": main["version"]}
    debian = []
    for line in packages.splitlines():
        name, found, architecture = line.split("\t")
        purl = f"pkg:deb/{system}/{name}@{quote(found, safe='')}?arch={architecture}&distro={system}-{version}"
        debian.append({"type": "library", "bom-ref": purl, "name": name, "version": found, "purl": purl})
    return {
        **content,
        "metadata": {**content.get("metadata", {}), "component": image},
        "components": [*content["components"], *debian],
    }


def _said(command: Any) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    text = json.dumps(listed(sys.argv[1]), indent=2) + "\n"
    if wrong := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
        sys.exit(f"the list is no valid CycloneDX 1.6: {wrong}")
    sys.stdout.write(text)
