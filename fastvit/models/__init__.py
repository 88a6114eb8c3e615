"""The model, in reading order: config, affine, reparam, layers, fastvit; then multiscale, forms, overparam, moments, flops."""
