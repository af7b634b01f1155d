"""What usage means: dormant SIMs, buckets that are used up, commitments that are not met. Pure, like all of the core.

``objects`` are the wire types, ``periods`` cuts time by local dates, ``dormancy`` decides about the SIMs of a service,
``metering`` counts for buckets and contracts, ``desk`` keeps rows and index of one partition in step with them.
"""
