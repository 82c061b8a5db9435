"""What a person runs by hand: no stage imports anything from here."""
