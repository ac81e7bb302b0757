"""How both programs meet the person who calls them."""
