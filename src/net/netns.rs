//! Network namespaces, veth pairs and bridges for the demo and the tests.
