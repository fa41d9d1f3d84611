"""Give the attacks to other benches and libraries, in the form in which they call one: a module for each of them."""
