"""What may be given as data, for every command that reads labelled pictures; it is read by `fastvit.data.resolve`."""

NOTATION = """
  FOLDER                          SPLIT/CLASS/*.jpg, in whatever folders inside CLASS; or CLASS/*.jpg without splits
  FOLDER                          SPLIT.zip or SPLIT.tar, SPLIT/CLASS.tar, or SPLIT/*.tar that are WebDataset's shards
  FILE.zip, FILE.tar              SPLIT/CLASS/*.jpg or CLASS/*.jpg, read where it lies; a .tar may be one shard
  '{split}-{000000..001023}.tar'  WebDataset's shards: KEY.jpg with a label in KEY.cls, or "label" in KEY.json; names of
  '{split}-*.tar'                 classes in classes.txt beside them, one a line; A::B joins two patterns
  torch/NAME:FOLDER               torchvision's data set NAME in FOLDER, downloaded if it is not there
  hfds/NAME, hfds/FOLDER          a data set of the Hugging Face Hub, or a folder of one, with columns image and label

SPLIT is train, and val, validation or test, the first there is.
"""
