"""Long work that nothing can take along with it: one folder and one detached runner per job, on any machine."""
