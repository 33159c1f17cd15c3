"""Corruptions of images: noise, blur, weather and digital ones, and accuracy under each of them."""
