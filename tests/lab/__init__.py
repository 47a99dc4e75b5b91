"""A small network of namespaces with a resolver and two registries, for tests, demo and benchmarks."""
