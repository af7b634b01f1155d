"""Functions of the user that make events of events: declared in the settings, run in processes that can be killed."""
