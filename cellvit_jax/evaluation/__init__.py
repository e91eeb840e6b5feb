"""How good a network is: protocols and reports, standing above inference."""
