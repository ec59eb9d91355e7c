"""DICOM files as they really are: walking folders, reading headers, decoding pixels."""
