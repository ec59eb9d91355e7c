"""The only process of a hospital that reaches the Internet: it carries sealed messages and reads no patient's data."""
