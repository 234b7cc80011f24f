"""Token-sparse diffusion networks and Sparse Guidance, in plain PyTorch. Never imports a host."""
