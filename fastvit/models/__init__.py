"""The model: config, affine, reparam, layers, fastvit; then multiscale, forms, overparam, moments, flops."""
