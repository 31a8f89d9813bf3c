"""What the Train page shows of jobs: forms, states, what is new, estimates of memory."""
