"""The browser app: the workspace's state and its rollouts with images and revisions."""
