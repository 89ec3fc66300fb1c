"""Any runs side by side, simulated or live: each metric with its difference, and where on a request's path it is."""
