"""Fundamental domains of finite groups, each a cone with as many walls as dimensions."""
