"""Image and text encoders of MobileCLIP: zero-shot classification and search.

    clip = fastvit.clip.load("mobileclip2_s0")
    model = clip.zero_shot(["cat", "dog"], prompts="photo")  # a FastViT with two classes
    print(fastvit.predict(model, "photo.jpg").label)

Encoding texts needs the extra [clip], whose tokenizer it takes; a model of labels, once made or saved, needs nothing.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
