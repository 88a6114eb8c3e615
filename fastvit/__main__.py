"""python -m fastvit"""

from .cli import main

main()
