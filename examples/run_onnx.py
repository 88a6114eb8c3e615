"""An exported model, run where there is no fastvit and no torch: by onnxruntime, numpy and Pillow alone.

fastvit export fastvit_t8.cifar10 t8.onnx --with-preprocessing
python examples/run_onnx.py t8.onnx weights/cat.jpg
"""

import json
import sys

import numpy
import onnxruntime
from PIL import Image, ImageOps

model, photograph = sys.argv[1:]
session = onnxruntime.InferenceSession(model)
about = session.get_modelmeta().custom_metadata_map  # names of classes, preprocessing, licence
_, height, width = json.loads(about["pretrained_cfg"])["input_size"]
image = ImageOps.fit(Image.open(photograph).convert("RGB"), (width, height), Image.Resampling.BICUBIC)
pixels = numpy.asarray(image, numpy.float32).transpose(2, 0, 1)[None]  # (1, 3, height, width), from 0 to 255
probabilities = session.run(None, {"images": pixels})[0][0]
print(json.loads(about["label_names"])[probabilities.argmax()], probabilities.max())
