"""python -m fastvit"""

from .cli import app

app()
