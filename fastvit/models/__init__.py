"""The model, in reading order.

config      every variant, as a row that says only what varies, and its size
affine      convolutions and linear layers as vectors that add, subtract and scale
reparam     what a foldable block is, and how a model's blocks are replaced by plain layers
blocks      the foldable blocks: forward and kernel under each other
layers      what does not fold whole, bottom up to a stage
heads       classes, or an embedding, of the last map
fastvit     the model

multiscale  features of several stages on one grid, for a vision language model
forms       unfused, partial and fused models, and the inverse of reparameterization
inverses    what each block gets back from its plain layer
moments     what is measured for that
flops       how much arithmetic a model does
"""
