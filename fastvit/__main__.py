"""The command line, as `python -m fastvit`."""

from .cli import main

main()
