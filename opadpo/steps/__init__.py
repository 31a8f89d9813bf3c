"""One function per arrow of the pipeline; command line, notebooks and app call these and hold no logic."""
