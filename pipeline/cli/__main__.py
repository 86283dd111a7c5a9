"""`python -m pipeline.cli` where the `phs-pipeline` script is not on the path."""

from pipeline.cli.main import main

main()
