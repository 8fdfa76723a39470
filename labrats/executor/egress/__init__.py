"""The network of an agent that may not reach every host: a namespace with only loopback, and a proxy outside it."""
