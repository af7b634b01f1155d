"""Rate plan changes: orders, the scheduler, the executor with its hooks, the persister; and dry runs of them."""
