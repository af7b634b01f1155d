"""Do the topics of plan changes and the billing store tell the same story?"""
