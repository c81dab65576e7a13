"""attention: one definition, every mask and option, at lengths around tile sizes and at those that matter."""
