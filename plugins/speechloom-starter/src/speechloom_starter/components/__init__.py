"""The starter's seven components, each a thin class over one of its networks."""
