// Go's tutorial "Developing a RESTful API with Go and Gin", with the upload of Gin's README. Gin listens where PORT says.
package main

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"time"

	"github.com/gin-gonic/gin"
)

type album struct {
	ID     string  `json:"id"`
	Title  string  `json:"title" binding:"required"`
	Artist string  `json:"artist"`
	Price  float64 `json:"price"`
}

var albums = []album{
	{ID: "1", Title: "Blue Train", Artist: "John Coltrane", Price: 56.99},
}

func main() {
	router := gin.Default()
	router.GET("/albums", func(c *gin.Context) { c.IndentedJSON(http.StatusOK, albums) })
	router.GET("/albums/:id", func(c *gin.Context) {
		for _, a := range albums {
			if a.ID == c.Param("id") {
				c.IndentedJSON(http.StatusOK, a)
				return
			}
		}
		c.IndentedJSON(http.StatusNotFound, gin.H{"message": "album not found"})
	})
	router.POST("/albums", func(c *gin.Context) {
		var newAlbum album
		if err := c.ShouldBindJSON(&newAlbum); err != nil {
			c.JSON(http.StatusBadRequest, gin.H{"error": err.Error()})
			return
		}
		albums = append(albums, newAlbum)
		c.IndentedJSON(http.StatusCreated, newAlbum)
	})
	router.POST("/form", func(c *gin.Context) {
		c.SetCookie("gin_cookie", c.PostForm("message"), 3600, "/", "", false, true)
		c.JSON(http.StatusOK, gin.H{"message": c.PostForm("message"), "nick": c.DefaultPostForm("nick", "anonymous")})
	})
	router.POST("/upload", func(c *gin.Context) {
		file, err := c.FormFile("file")
		if err != nil {
			c.String(http.StatusBadRequest, err.Error())
			return
		}
		content, _ := file.Open()
		hash := sha256.New()
		n, _ := io.Copy(hash, content)
		c.JSON(http.StatusOK, gin.H{"name": file.Filename, "n": n, "sha256": hex.EncodeToString(hash.Sum(nil))})
	})
	router.GET("/events", func(c *gin.Context) {
		n := 0
		c.Stream(func(w io.Writer) bool {
			c.SSEvent("message", n)
			n++
			time.Sleep(20 * time.Millisecond)
			return n < 5
		})
	})
	router.Run()
}
