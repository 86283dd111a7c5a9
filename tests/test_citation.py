"""Who uses a bundle can find its paper: identifiers in the metadata, the model cards and CITATION.cff."""

import re
from pathlib import Path

import pytest

from pipeline.bundles import Bundle, list_bundles

ROOT = Path(__file__).parents[1]
IDENTIFIER = re.compile(r"arXiv:\d{4}\.\d{4,5}|doi:10\.\d{4,}/[^\s,;)]+")


def identifiers(text: str) -> list[str]:
    return [found.rstrip(".") for found in IDENTIFIER.findall(text)]


@pytest.mark.parametrize("bundle", list_bundles(), ids=lambda bundle: bundle.name)
def test_every_reference_of_a_bundle_has_an_identifier_that_its_card_gives_too(bundle: Bundle) -> None:
    card = (bundle.root / "docs" / "README.md").read_text(encoding="utf-8")
    for reference in bundle.metadata["references"]:
        assert identifiers(reference), reference
        assert set(identifiers(reference)) <= set(identifiers(card)), reference


@pytest.mark.parametrize("bundle", list_bundles(), ids=lambda bundle: bundle.name)
def test_the_citation_file_names_the_paper_of_each_bundle(bundle: Bundle) -> None:
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8").replace("doi: ", "doi:")
    assert identifiers(bundle.metadata["references"][0])[0] in identifiers(citation.replace('"', " "))
