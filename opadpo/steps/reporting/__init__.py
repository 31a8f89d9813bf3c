"""What the report is made of: facts of a workspace, examples, figures, and the templates that lay them out."""
