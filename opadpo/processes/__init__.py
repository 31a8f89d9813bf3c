"""Several processes that do one step together, one per GPU: started here or by torchrun, accelerate or srun."""
