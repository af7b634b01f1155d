"""The canary: a real plan change every hour, of a service of our own, measured from order to effect."""
