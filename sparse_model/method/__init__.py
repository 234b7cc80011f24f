"""The method: which tokens are kept, which predictions a guided step needs, how they become one, and a sampler."""
