"""The runtime under the agents: pure parts, real broker, and the Faust facts that it stands on."""
