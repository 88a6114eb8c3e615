"""python -m fastvit"""

from .commands import app

app()
