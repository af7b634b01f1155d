-- Schema ids must outlive the registry's container, so it keeps them here, apart from the billing store.
CREATE DATABASE registry;
