"""Who may come into the app: accounts with roles, sessions that end, and a brake on guessing passwords."""
