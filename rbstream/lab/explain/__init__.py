"""What a network looks at: occlusion maps and gradient saliency of single alerts, and their means over classes."""
