"""Where a run computes: one device, or many devices of many machines by Lightning Fabric."""
