"""What the pages' scripts ask over HTTP."""
