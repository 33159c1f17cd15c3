"""From a Keras model to a classifier: outputs, features, backbones."""
